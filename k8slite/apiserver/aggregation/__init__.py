"""Other apiservers behind this one: APIServices, their state, and the way there."""

"""What is behind a Service, and its addresses."""

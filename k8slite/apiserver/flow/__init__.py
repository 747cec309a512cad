"""Priority and fairness: who may have how many requests at work, and who waits."""

"""What is in the data, and what is wrong with it, before training starts."""

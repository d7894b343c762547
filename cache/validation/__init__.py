"""What is wrong with a dataset folder, all of it."""

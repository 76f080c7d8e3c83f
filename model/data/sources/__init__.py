"""What pairs come from: a corpus with an objective, or a task's examples."""

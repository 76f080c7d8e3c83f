"""Fine-tuning: a trained model goes on with tasks, and the best checkpoint of each is kept."""

"""Evaluates trained models: predicts texts, scores tasks, writes reports."""

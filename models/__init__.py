"""Networks that return Outputs; none knows that distillation exists."""

"""What is true, whoever asks: models, GPUs, releases, flags, families."""

"""Training a side network on a frozen backbone: settings, losses, probe, checkpoints, the loop."""

"""Side networks: what is trained to make a frozen backbone follow poses, one class per family."""

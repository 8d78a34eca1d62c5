"""Arms that differ in a few settings of one training, compared by steps and by seconds."""

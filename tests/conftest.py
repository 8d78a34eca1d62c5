"""Settings shared by all tests."""

import torch

# The models here are tiny: more threads cost time, and they can change the last bits of a sum.
torch.set_num_threads(1)

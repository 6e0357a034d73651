"""From layers to kernel calls: match the layers, plan the kernels, write the module."""

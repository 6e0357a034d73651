"""The engines that are measured, ours and its peers, behind one interface."""

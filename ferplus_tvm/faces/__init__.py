"""From an image of a face to the network's input, and from its scores to a `Prediction`."""

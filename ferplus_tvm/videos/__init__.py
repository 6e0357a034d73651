"""Videos and cameras: frames, the faces in them, and who is who from one frame to the next."""

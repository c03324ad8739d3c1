"""Faces in photographs: found, aligned to what a network was trained on, and put back."""

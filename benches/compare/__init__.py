"""Pillion against its peers on one machine; run.py is the command."""

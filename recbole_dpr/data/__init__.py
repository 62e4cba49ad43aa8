"""Histories, item attributes and prompts."""

"""Recipes: complete runs by name, and the steps that carry them out."""

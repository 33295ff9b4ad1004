"""Pictures for people: curves over the steps, and sheets of photographs.

The only package that imports matplotlib, each time inside the function that draws.
"""

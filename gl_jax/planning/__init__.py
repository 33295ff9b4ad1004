"""A run on chips that are not there: does it fit, how long would it take at least?"""

"""Where may a text be cut?"""

"""The controlled world's experiment: which causal claims hold where the truth is known?"""

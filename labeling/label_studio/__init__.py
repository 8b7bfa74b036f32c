"""People label in Label Studio: the interface, tasks out, annotations back, and a server of one's own.

`client` is the one module that imports label-studio-sdk; everything else speaks to a server through `studio.Studio`.
"""

"""From images to numbers: the face in each frame, and the mean colours of three regions of its skin.

Needs the extra `vitals-video`. Nothing is downloaded: the two models come with the package.
"""

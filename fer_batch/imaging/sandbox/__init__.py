"""Decode the images of others in processes that can do nothing else.

`decoders` is the side that holds the secrets: it sends the bytes of images through the pipes of
`handles` and checks every answer. `server` is the process that it starts with an empty environment;
it loads OpenCV and the face detector and forks a decoder for each thread. `confinement` takes all
rights from a decoder before it sees a byte, `messages` is the binary form of requests and answers,
`memory` the budget for the pixels of all decoders together.
"""

"""Digests of the report, by mail and to chats: who gets which, what it says, and its delivery.

`subscriptions` reads who gets which facilities, `content` decides what a digest says, in the words
of the package `reporting`, `rendering` writes it as text and HTML, `mail` and `chat` deliver it,
and `deliveries` records what was sent. `notify` does all of that for a capture day. A recipient
gets the facilities of the subscription and nothing of others.
"""

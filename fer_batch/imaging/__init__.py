"""From the bytes of an image to the 48×48 gray crops of its faces.

`headers` reads size and completeness from the container, `other_formats` names what is no image
that can be read, `decoding` makes upright pixels, `faces` detects faces and crops them. What cannot
be decoded becomes an outcome with a reason. Where the bytes come from is left to `storage` and
`predict`, what a crop shows to `model`.
"""

"""The CNN: artifacts with their cards, model versions, which one is active, and how good it is.

`classifier` turns crops into probabilities and defines the model version, `model_registry` and
`active_model` store and choose CNNs, `evaluation`, `calibration`, `corruptions` and `fer2013`
measure one, `model_card` renders its card. Crops come from `imaging`; fitting a CNN is left to
`training`; figures about facilities are left to `satisfaction`.
"""

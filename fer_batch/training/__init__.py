"""Training of the CNN with Keras, from FER2013 to an ONNX artifact with its card.

`run` is one training run, `candidates` compares several sizes. `recipe` holds the hyperparameters,
`data` builds targets and augmented batches, `network` defines the CNN, `fit` and `sam` optimize it,
`distillation` makes and reads soft labels, `platt_scaling` calibrates, `export` and `quantization`
write ONNX. Nothing outside this package imports TensorFlow or Keras. Metrics, the card format and
choosing the active model are left to `model`.
"""

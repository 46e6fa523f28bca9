"""Training of the CNN with Keras. Nothing outside this package imports TensorFlow or Keras."""

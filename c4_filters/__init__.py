"""The rules of C4 as pure functions: no Beam, no JAX, no TensorFlow, no network."""

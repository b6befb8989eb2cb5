# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""TFRecord -> batches on the devices.

Read in this order: batch, tfrecord, packing, permutation, mixing, order, loader (the
batch of a step), then server and worker (another process does it), device (jax).
"""

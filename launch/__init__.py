# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""From a laptop to machines in Google Cloud. Runs without jax, like `configs`."""

# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""Plans, parity, traces and goodput: what a run will do and what it did."""

# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0
"""What a step costs before it runs, and where its time went after."""

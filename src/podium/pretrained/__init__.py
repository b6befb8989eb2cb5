# Copyright 2026 The Podium Authors
# SPDX-License-Identifier: Apache-2.0

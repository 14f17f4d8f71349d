"""The header reader against pydicom, on every sample that pydicom brings, in every encoding."""

from __future__ import annotations

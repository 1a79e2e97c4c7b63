# SPDX-License-Identifier: Apache-2.0
"""Triton kernels run in its interpreter where there is no GPU; it must be chosen before they are defined."""

import os
from importlib.util import find_spec

import torch


def _interpret() -> None:
    os.environ.setdefault("TRITON_INTERPRET", "1")
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def patched(tensor, scope):
        patch(tensor, scope)
        # numpy 2.4 has no int() for arrays of one element, which loop bounds of Triton 3.6 are.
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patched


if find_spec("triton") and not torch.cuda.is_available():
    _interpret()

"""The one part of the build that pyproject.toml cannot say: a small C extension that may fail.

Where there is no compiler the package installs without it and computes in numpy.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "tensorsurgeon.kernels._compiled",
            sources=["tensorsurgeon/kernels/_compiled.c"],
            # A fused product and sum would round once where numpy rounds twice. That nobody looks
            # at floating-point exceptions lets more loops become vector code.
            extra_compile_args=["-O3", "-ffp-contract=off", "-fno-trapping-math"],
            py_limited_api=True,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)

"""The one part of the build that pyproject.toml cannot say: small C extensions that may fail.

Where there is no compiler the package installs without them and computes in numpy.
"""

from glob import glob

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            f"tensorsurgeon.kernels.{name}",
            sources=[f"tensorsurgeon/kernels/{name}.c"],
            depends=glob("tensorsurgeon/kernels/*.h"),
            # A fused product and sum would round once where numpy rounds twice. That nobody looks
            # at floating-point exceptions lets more loops become vector code.
            extra_compile_args=["-O3", "-ffp-contract=off", "-fno-trapping-math"],
            py_limited_api=True,
            optional=True,
        )
        for name in ("_compiled", "_low_rank", "_random", "_task_vectors")
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)

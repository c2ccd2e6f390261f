# An image with the package, the recipes and ser-cl, on Debian's own Python.
#
#     docker build -t ser-cl .
#     docker run --rm ser-cl doctor
#     docker run --rm --gpus all -v /data:/data -v "$PWD":/mnt ser-cl probe /data/calls
#
# PyTorch's wheels of PyPI bring CUDA along and work without a GPU as well. For a much
# smaller image without CUDA give the address of PyTorch's CPU wheels, which is on its
# installation page:
#
#     docker build -t ser-cl:cpu --build-arg TORCH_INDEX=ADDRESS .
FROM debian:bookworm-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv libsndfile1 \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1
RUN python3 -m venv /opt/venv

ARG TORCH_INDEX=
RUN if [ -n "$TORCH_INDEX" ]; then \
    pip install --index-url "$TORCH_INDEX" "torch>=2.8,<2.12" "torchaudio>=2.8,!=2.11.1,<2.12"; fi

COPY . /opt/speechbrain_ser_cl
RUN pip install -e "/opt/speechbrain_ser_cl[recipes]"

# Models of the hub and cached features, to be kept in a volume.
ENV HF_HOME=/cache/huggingface SER_CL_CACHE=/cache/ser_cl
VOLUME /cache
WORKDIR /mnt
ENTRYPOINT ["ser-cl"]
CMD ["--help"]

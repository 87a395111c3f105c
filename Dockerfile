# edgerecover for CPUs, from this checkout: docker build --tag edgerecover .
# docs/how-to/install.md says how to run it, and what to change for a GPU.
FROM python:3.12-slim

# PyTorch's index of wheels without CUDA. https://pytorch.org/get-started/locally/ names those for GPUs.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir torch torchvision --index-url "$TORCH_INDEX"

COPY pyproject.toml README.md LICENSE /src/
COPY edgerecover /src/edgerecover
COPY targets /src/targets
COPY profiles /src/profiles
COPY docs /src/docs
RUN pip install --no-cache-dir /src

# Not root; and whoever is named with --user can write to this home.
RUN useradd --create-home edgerecover && install --directory --owner edgerecover /work
ENV HOME=/tmp
USER edgerecover
WORKDIR /work
ENTRYPOINT ["edgerecover"]
CMD ["--help"]

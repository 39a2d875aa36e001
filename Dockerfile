# The server of docs/serving.md. BASE and TORCH choose the CPU (as they are) or CUDA.
ARG BASE=python:3.12-slim
FROM ${BASE}
ARG TORCH=https://download.pytorch.org/whl/cpu
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv g++ python3-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/csm
ENV PATH=/opt/csm/bin:$PATH PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
COPY . /src
RUN pip install --no-cache-dir --index-url ${TORCH} torch torchaudio \
    && pip install --no-cache-dir --constraint /src/constraints.txt '/src[serve]' \
    && rm -rf /src
RUN useradd --create-home csm
USER csm
WORKDIR /home/csm
EXPOSE 8765
HEALTHCHECK CMD python3 -c "import socket; socket.create_connection(('127.0.0.1', 8765), 2)"
# Other machines reach it: CSM_TOKEN must be set.
CMD ["csm", "serve", "--host", "0.0.0.0"]

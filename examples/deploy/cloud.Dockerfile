# The cloud's end. Build it in the checkout's root:
#   docker build -f examples/deploy/cloud.Dockerfile -t foredraft-cloud .
# PyPI's torch for Linux brings CUDA, which an NVIDIA driver alone is missing for. Where there is no GPU, several GB are
# saved by an index that has the CPU build: --build-arg PIP_EXTRA_INDEX_URL=... --build-arg TORCH="torch==2.13.0+cpu"
ARG PYTHON="python:3.11-slim"
FROM $PYTHON
ARG TORCH="torch==2.13.0"
ARG PIP_EXTRA_INDEX_URL=""
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY hardware_profiles hardware_profiles
COPY runtime runtime
COPY sim sim
RUN pip install --no-cache-dir "$TORCH" && pip install --no-cache-dir -c requirements.lock ".[torch,openai]" && rm -rf /src
WORKDIR /tmp
USER nobody
ENV XDG_CACHE_HOME=/tmp/cache
EXPOSE 8471
HEALTHCHECK --interval=10s --start-period=120s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8471/live', timeout=5)"]
ENTRYPOINT ["foredraft", "serve", "--host", "0.0.0.0"]

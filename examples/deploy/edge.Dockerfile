# The device's end, without torch: the n-gram drafter behind OpenAI's interface. Build it in the checkout's root:
#   docker build -f examples/deploy/edge.Dockerfile -t foredraft-edge .
ARG PYTHON="python:3.11-slim"
FROM $PYTHON
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY hardware_profiles hardware_profiles
COPY runtime runtime
COPY sim sim
RUN pip install --no-cache-dir -c requirements.lock ".[openai]" && rm -rf /src
WORKDIR /tmp
USER nobody
ENV XDG_CACHE_HOME=/tmp/cache
EXPOSE 8472
HEALTHCHECK --interval=10s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8472/live', timeout=5)"]
ENTRYPOINT ["foredraft", "edge", "--host", "0.0.0.0"]

# `voxclone serve` in a container: no root, a read-only root file system, voices in a volume.
FROM python:3.11-slim-bookworm

ARG TORCH=2.13.0
WORKDIR /app
RUN pip install --no-cache-dir "torch==${TORCH}"
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir --constraint constraints.txt ".[serve,media]" \
    && useradd --create-home --uid 1000 voxclone \
    && install --directory --owner voxclone --mode 700 /voices
USER 1000
VOLUME /voices
EXPOSE 8000
HEALTHCHECK --start-period=120s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/ready', timeout=5)"]
ENTRYPOINT ["voxclone", "serve", "--host", "0.0.0.0", "--voices", "/voices", "--api-key-file", "/run/secrets/voxclone_key"]
CMD ["mini"]

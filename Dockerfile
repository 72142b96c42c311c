FROM python:3.13-slim AS build
RUN pip install --no-cache-dir --disable-pip-version-check "uv>=0.9,<1"
ENV UV_PROJECT_ENVIRONMENT=/opt/c360 UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
WORKDIR /src
# The locked libraries are a layer of their own: it stays while only our code changes.
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --quiet --locked --no-dev --no-install-project
COPY . .
RUN uv sync --quiet --locked --no-dev --no-editable

FROM python:3.13-slim
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/c360 c360
COPY --from=build /opt/c360 /opt/c360
ENV PATH=/opt/c360/bin:$PATH PYTHONUNBUFFERED=1 C360_DATA_DIR=/var/lib/c360
USER c360
WORKDIR /var/lib/c360
VOLUME /var/lib/c360
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=4s --start-period=10s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/live', timeout=3)"]
CMD ["c360", "serve", "--host", "0.0.0.0", "--port", "8000"]

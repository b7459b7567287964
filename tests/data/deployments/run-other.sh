docker run --rm nginx:latest # not text-generation-inference

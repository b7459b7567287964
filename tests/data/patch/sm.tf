resource "aws_sagemaker_model" "t" {
  primary_container {
    image = "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.4.0-tgi3.0.1-gpu-py311-cu124-ubuntu22.04"
    environment = {
      HF_MODEL_ID      = "Qwen/Qwen2.5-7B-Instruct"
      MAX_TOTAL_TOKENS = "4096"
    }
  }
}

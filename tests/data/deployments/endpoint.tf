resource "aws_sagemaker_model" "llm" {
  primary_container {
    image = "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-tgi-inference:2.4.0-tgi2.4.0-gpu"
    environment = {
      HF_MODEL_ID = "org/a"
      SM_NUM_GPUS = "4"
    }
  }
}
